// Times in trtexec's words, or as `hiresvit bench --json` has them.
#pragma once

#include "hiresvit/hiresvit.hpp"

// Runs `frames` frames one after the other and as many two deep, and prints what they took.
void bench(hiresvit::Engine& engine, const hiresvit::Picture& picture, hiresvit::Answer answer, int frames, bool json);
