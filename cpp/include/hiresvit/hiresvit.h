/* hiresvit in C: a bundle that `hiresvit export` wrote, loaded; pictures in, labels, classes or
 * boxes out.
 *
 * Every function that can fail returns a status: 0, or a code below, and then hiresvit_last_error() has a line of text.
 * Nothing here throws, prints or ends the process. Structures begin with their own size, which the caller sets to
 * sizeof: a later library reads and fills no more of them than the caller has. Fields that are not set are zero, and
 * zero is the default of each.
 *
 * An engine serves one thread at a time and refuses a second one with HIRESVIT_BUSY. Engines are independent.
 * No function allocates memory between the first frame of a size and the next size, except where it fails.
 */
#ifndef HIRESVIT_H
#define HIRESVIT_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define HIRESVIT_API __attribute__((visibility("default")))
#else
#define HIRESVIT_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The first eight are the exit codes of the command line. */
enum {
  HIRESVIT_OK = 0,
  HIRESVIT_BAD_INPUT = 1,     /* a picture that is none, a file that may not be read */
  HIRESVIT_USAGE = 2,         /* arguments that cannot be served, calls in an order that cannot be */
  HIRESVIT_ILLEGAL_GRAPH = 3, /* a graph that its runtime does not take */
  HIRESVIT_FAILED = 5,        /* a runtime that failed, memory that ran out */
  HIRESVIT_MISSING = 6,       /* a library or a device that is not here, or of another version */
  HIRESVIT_DAMAGED = 7,       /* a bundle that is damaged, edited, of another schema, or does not answer as it did */
  HIRESVIT_BUSY = 8           /* another thread is using this engine */
};

enum { /* hiresvit_picture.pixels */
  HIRESVIT_RGB = 0,
  HIRESVIT_BGR = 1,
  HIRESVIT_RGBA = 2, /* alpha is not looked at */
  HIRESVIT_BGRA = 3,
  HIRESVIT_NV12 = 4 /* luma, and interleaved Cb, Cr of half the sides */
};

enum { /* hiresvit_picture.yuv: the colours of NV12, limited range unless it says full */
  HIRESVIT_YUV_NONE = 0,
  HIRESVIT_BT601 = 1,
  HIRESVIT_BT709 = 2,
  HIRESVIT_BT601_FULL = 3,
  HIRESVIT_BT709_FULL = 4
};

enum { /* types of tensors; label maps are U8, I32 or I64 */
  HIRESVIT_U8 = 0,
  HIRESVIT_I32 = 1,
  HIRESVIT_I64 = 2,
  HIRESVIT_F16 = 3,
  HIRESVIT_F32 = 4
};

enum { /* hiresvit_info.task: of features and masks the raw outputs are all that there is */
  HIRESVIT_CLASSIFY = 0,
  HIRESVIT_SEGMENT = 1,
  HIRESVIT_FEATURES = 2,
  HIRESVIT_MASKS = 3,
  HIRESVIT_DETECT = 4
};
enum { /* hiresvit_info.contract */ HIRESVIT_TENSOR = 0, HIRESVIT_IMAGE = 1, HIRESVIT_CAMERA = 2 };

typedef struct hiresvit_engine hiresvit_engine;

/* How a bundle is opened. */
typedef struct {
  size_t struct_size;
  const char *graph;    /* a role: cpu, simplified, fp32, fp16, int8, plan, int8_plan. NULL: of ONNX Runtime the first
                           of these that there is, of TensorRT plan, else int8_plan */
  const char *backend;  /* "onnxruntime" or "tensorrt". NULL: what the graph needs, else onnxruntime */
  const char *library;  /* the runtime's shared library. NULL: HIRESVIT_ONNXRUNTIME in the environment, else what the
                           loader finds as libonnxruntime.so.1; of TensorRT its own names */
  int32_t threads;      /* of the CPU, for the runtime and for pictures each; 0: as many as this process may use */
  int32_t skip_golden;  /* 1: do not replay the golden pair. It takes one frame's time */
  int32_t cuda_graph;   /* TensorRT: 1 records the frame as a CUDA graph */
  int32_t device;       /* TensorRT: which GPU */
  void *stream;         /* TensorRT: your cudaStream_t, NULL for one of its own */
  int32_t host_code;    /* TensorRT: 1 allows a plan that brings code for the host */
  const char *context;  /* the .onnx of a context for Qualcomm's HTP that `hiresvit build --backend qnn` compiled from a
                           graph of this bundle: runs in its place, with the compiled file that lies beside it */
  const char *provider; /* of a context: libonnxruntime_providers_qnn.so. NULL: HIRESVIT_QNN in the environment, else
                           what the loader finds by that name. A process has one: the first that is opened */
  int32_t soc_model;    /* of a context: refuse one that is for another chip than this number of Qualcomm's; 0: do not */
} hiresvit_options;

/* A picture in your memory. */
typedef struct {
  size_t struct_size;
  int32_t pixels; /* HIRESVIT_RGB ... */
  int32_t yuv;    /* with HIRESVIT_NV12 */
  int32_t height;
  int32_t width;
  const uint8_t *planes[2];
  ptrdiff_t strides[2]; /* bytes from a row to the next; 0: rows lie behind each other */
} hiresvit_picture;

/* A box that was found, in pixels of the picture: left, top, right, bottom, as borders between pixels. */
typedef struct {
  float box[4];
  float score; /* 0 to 1 */
  int32_t label;
} hiresvit_detection;

/* Where an answer goes: your buffers. What is NULL is not made. */
typedef struct {
  size_t struct_size;
  int32_t height; /* of the label map and the confidence: the picture's */
  int32_t width;
  void *labels;         /* segment: a class a pixel */
  int32_t label_type;   /* HIRESVIT_U8 (up to 256 classes), HIRESVIT_I32 or HIRESVIT_I64 */
  ptrdiff_t stride;     /* bytes from a row to the next, 0: rows lie behind each other */
  uint8_t *confidence;  /* floor(255 * probability of the winner + 0.5) */
  ptrdiff_t confidence_stride;
  int32_t k;            /* classify: places in the next two; detect: in boxes; set to those that were filled */
  int32_t *classes;     /* best first, of equals the lowest */
  float *probabilities;
  hiresvit_detection *boxes; /* detect: best first */
} hiresvit_answer;

/* What was loaded. The texts are valid as long as the engine. */
typedef struct {
  size_t struct_size;
  const char *model;
  const char *graph;   /* the role that runs */
  const char *backend; /* "ONNX Runtime 1.31.1, CPU" */
  int32_t task;
  int32_t contract;
  int32_t pixels; /* of the contracts image and camera */
  int32_t yuv;
  int32_t network_height;
  int32_t network_width;
  int32_t camera_height; /* contract camera: the size that every picture must have, else 0 */
  int32_t camera_width;
  int32_t num_classes;
  int32_t named_classes; /* as many, or 0 where the bundle knows neither their names nor colours */
  int32_t most_classes; /* classify: the most that an answer can name */
  int32_t has_confidence;
  int32_t outputs; /* of the graph */
  int32_t emulated; /* 1: Qualcomm's emulator computes a context here. Its answers count, its time says nothing */
  int32_t most_boxes; /* detect: the most that an answer can have */
} hiresvit_info;

/* A tensor of the graph, as it lies in memory. */
typedef struct {
  size_t struct_size;
  const char *name;
  const void *data;
  size_t bytes;
  int32_t type; /* HIRESVIT_U8 ... */
  int32_t rank;
  int64_t shape[8];
} hiresvit_tensor;

/* Milliseconds of the frame that was waited for last. */
typedef struct {
  size_t struct_size;
  double prepare; /* resizing, normalising, copying into the network's input */
  double network; /* from the submit to the answer: of two frames under way with the wait for the first */
  double answer;  /* from the network's output to labels, classes or boxes */
  int32_t on_gpu; /* whether the next four were measured */
  double enqueue, h2d, compute, d2h;
} hiresvit_times;

/* The version of this library, "0.6.0". */
HIRESVIT_API const char *hiresvit_version(void);

/* One line about the last call of this thread that failed; "" before the first. Valid until the next that fails. */
HIRESVIT_API const char *hiresvit_last_error(void);

/* Opens a bundle's folder: verifies its sums, loads the graph, holds it to the manifest's contract and replays the
 * golden pair. `options` may be NULL. On failure *engine is NULL. */
HIRESVIT_API int hiresvit_open(const char *bundle, const hiresvit_options *options, hiresvit_engine **engine);

/* Waits for the frames that are under way, frees all and sets *engine to NULL; NULL and *engine == NULL are nothing to
 * do. No other thread may use the engine then. */
HIRESVIT_API void hiresvit_close(hiresvit_engine **engine);

/* Fills *info. */
HIRESVIT_API int hiresvit_describe(const hiresvit_engine *engine, hiresvit_info *info);

/* The name and colour (red, green, blue) of a class. Either may be NULL. HIRESVIT_USAGE where the bundle knows none. */
HIRESVIT_API int hiresvit_class(const hiresvit_engine *engine, int32_t index, const char **name, uint8_t rgb[3]);

/* Reads a picture and starts the network. The picture is yours again when this returns. Two frames may be under way:
 * while one runs the next is prepared. HIRESVIT_USAGE for a third, and for a picture of another size than the contract
 * camera's; the other contracts take any size, a new one at every frame if need be. */
HIRESVIT_API int hiresvit_submit(hiresvit_engine *engine, const hiresvit_picture *picture);

/* Waits for the oldest frame and writes its answer. HIRESVIT_USAGE, and the frame stays to be waited for, if the
 * buffers do not fit it; HIRESVIT_FAILED, and it is gone, if the network failed or answered NaN. */
HIRESVIT_API int hiresvit_wait(hiresvit_engine *engine, hiresvit_answer *answer);

/* hiresvit_submit and hiresvit_wait; HIRESVIT_USAGE if a frame is under way. */
HIRESVIT_API int hiresvit_run(hiresvit_engine *engine, const hiresvit_picture *picture, hiresvit_answer *answer);

/* How many frames are under way, 0 to 2; *height and *width, which may be NULL, are those of the oldest picture. */
HIRESVIT_API int hiresvit_pending(const hiresvit_engine *engine, int32_t *height, int32_t *width);

/* A raw output of the frame that was waited for last, for example feature maps: valid until the next submit. */
HIRESVIT_API int hiresvit_output(const hiresvit_engine *engine, int32_t index, hiresvit_tensor *tensor);

/* Fills *times. */
HIRESVIT_API int hiresvit_last_times(const hiresvit_engine *engine, hiresvit_times *times);

#ifdef __cplusplus
}
#endif

#endif
