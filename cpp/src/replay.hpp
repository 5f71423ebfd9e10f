// What a graph gives for the golden pair, held against what the exporting machine gave.
#pragma once

#include <string>

#include "backend.hpp"
#include "manifest.hpp"

namespace hiresvit {

// Runs the golden pair. Throws Error (damaged) if an output misses the gate that the role was exported with: tensors by
// SQNR and cosine, labels, and the best class of a pixel, by the share that agrees.
void replay_golden(const Manifest& manifest, const std::string& role, Backend& backend);

}  // namespace hiresvit
