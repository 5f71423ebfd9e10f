// A library that is no ONNX Runtime, or one that has no API that we can use.
#ifdef OLD_VERSION
#include <onnxruntime/onnxruntime_c_api.h>

namespace {
const OrtApi* ORT_API_CALL get_api(uint32_t) noexcept { return nullptr; }
const char* ORT_API_CALL get_version() noexcept { return OLD_VERSION; }
const OrtApiBase base{get_api, get_version};
}  // namespace

extern "C" const OrtApiBase* ORT_API_CALL OrtGetApiBase(void) noexcept { return &base; }
#else
extern "C" int something_else() { return 0; }
#endif
