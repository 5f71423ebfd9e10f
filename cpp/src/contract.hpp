// Whether a graph is what a bundle's manifest says, before any byte is written into its inputs.
#pragma once

#include <string>
#include <vector>

#include "backend.hpp"
#include "manifest.hpp"

namespace hiresvit {

const char* name_of(Type type);  // numpy's
Type type_of(const std::string& dtype);
std::size_t bytes_of(Type type);

// Whether a tensor of a graph can be what a manifest or a golden pair has: float16 for float32 is --io fp16, and an
// open axis (-1) is any.
bool type_fits(const std::string& dtype, Type type);
bool shape_fits(const std::vector<std::int64_t>& wanted, const std::vector<std::int64_t>& found);

// "image float32 [1, 3, 64, 96]"
std::string in_words(const std::string& name, const char* dtype, const std::vector<std::int64_t>& shape);

// Throws Error (damaged) unless a backend takes and gives what the manifest's contract says, by name, type and shape.
void check_contract(const Manifest& manifest, const std::string& role, const Backend& backend);

}  // namespace hiresvit
