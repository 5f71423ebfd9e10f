// Logits (classes, h, w) to the class map that Gst-nvinfer attaches to a frame: resized bilinearly to the network's
// size (half-pixel centres, repeated edges), then the best class, of equals the lowest.

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include "nvdsinfer_custom_impl.h"

namespace {

struct Taps {
    std::vector<unsigned> first, second;
    std::vector<float> part;  // of the second
};

Taps taps(unsigned source, unsigned target) {
    Taps found;
    for (unsigned index = 0; index < target; ++index) {
        const double place = (index + 0.5) * source / target - 0.5;
        const double centre = std::clamp(place, 0.0, static_cast<double>(source - 1));
        const auto first = static_cast<unsigned>(centre);
        found.first.push_back(first);
        found.second.push_back(std::min(first + 1, source - 1));
        found.part.push_back(static_cast<float>(centre - first));
    }
    return found;
}

}  // namespace

extern "C" bool NvDsInferParseHiresvit(
    std::vector<NvDsInferLayerInfo> const& layers, NvDsInferNetworkInfo const& network, float /*threshold*/,
    unsigned int classes, int* labels, float*& probabilities) {
    const auto layer = std::find_if(layers.begin(), layers.end(), [](NvDsInferLayerInfo const& one) {
        return one.layerName != nullptr && std::strcmp(one.layerName, "logits") == 0;
    });
    if (layer == layers.end() || layer->dataType != FLOAT || layer->inferDims.numDims != 3 ||
        layer->inferDims.d[0] != classes) {
        std::fprintf(stderr, "hiresvit: the engine needs an output 'logits', float32 (%u, h, w)\n", classes);
        return false;
    }
    const unsigned height = layer->inferDims.d[1], width = layer->inferDims.d[2];
    const auto* logits = static_cast<const float*>(layer->buffer);
    const Taps down = taps(height, network.height), across = taps(width, network.width);
    std::vector<float> best(network.width), row(width);
    for (unsigned y = 0; y < network.height; ++y) {
        int* out = labels + static_cast<std::size_t>(y) * network.width;
        for (unsigned index = 0; index < classes; ++index) {
            const float* plane = logits + static_cast<std::size_t>(index) * height * width;
            const float* top = plane + static_cast<std::size_t>(down.first[y]) * width;
            const float* bottom = plane + static_cast<std::size_t>(down.second[y]) * width;
            for (unsigned x = 0; x < width; ++x) row[x] = top[x] + (bottom[x] - top[x]) * down.part[y];
            for (unsigned x = 0; x < network.width; ++x) {
                const float left = row[across.first[x]];
                const float value = left + (row[across.second[x]] - left) * across.part[x];
                if (index == 0 || value > best[x]) {
                    best[x] = value;
                    out[x] = static_cast<int>(index);
                }
            }
        }
    }
    probabilities = nullptr;  // what is there are logits
    return true;
}

CHECK_CUSTOM_SEM_SEGMENTATION_PARSE_FUNC_PROTOTYPE(NvDsInferParseHiresvit);
