# The module that runs plans: of its own, because NvInfer.h's classes are of one major version. CUDA and TensorRT are
# opened when it runs, so nothing of NVIDIA's is linked and only headers are needed.
#
#   HIRESVIT_WITH_TENSORRT   build it; NvInfer.h is looked for in TENSORRT_ROOT and in the system
#   HIRESVIT_TENSORRT_RTX    for TensorRT-RTX, with the headers of TensorRT 11; RTX's own SDK is known by its headers

option(HIRESVIT_WITH_TENSORRT "Build the module for TensorRT; needs NvInfer.h and cuda_runtime_api.h" OFF)
option(HIRESVIT_TENSORRT_RTX "Build that module for TensorRT-RTX, with the headers of TensorRT 11" OFF)

set(HIRESVIT_TENSORRT_SOURCES tensorrt.cpp tensorrt_library.cpp cuda.cpp)
list(TRANSFORM HIRESVIT_TENSORRT_SOURCES PREPEND "${CMAKE_CURRENT_LIST_DIR}/../src/")

# A module against the headers of some folders. What it shares with the library it has for itself, and shows none of it:
# the two may be of different builds.
function(hiresvit_tensorrt_module target)
  add_library(${target} MODULE ${HIRESVIT_TENSORRT_SOURCES})
  set_target_properties(${target} PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  target_include_directories(${target} SYSTEM PRIVATE ${ARGN})
  target_link_libraries(${target} PRIVATE hiresvit_archive)
  target_link_options(${target} PRIVATE -Wl,--exclude-libs,ALL)
endfunction()

if(HIRESVIT_WITH_TENSORRT)
  find_path(HIRESVIT_NVINFER_INCLUDE NvInfer.h HINTS "${TENSORRT_ROOT}" "$ENV{TENSORRT_ROOT}" PATH_SUFFIXES include)
  find_path(HIRESVIT_CUDA_INCLUDE cuda_runtime_api.h
            HINTS "${CUDA_HOME}" "$ENV{CUDA_HOME}" /usr/local/cuda PATH_SUFFIXES include)
  if(NOT HIRESVIT_NVINFER_INCLUDE)
    message(FATAL_ERROR "NvInfer.h is not here: on a Jetson install libnvinfer-headers-dev, elsewhere give the folder of "
                        "TensorRT or of TensorRT-RTX's SDK with -DTENSORRT_ROOT=DIR, or leave out -DHIRESVIT_WITH_TENSORRT=ON")
  endif()
  if(NOT HIRESVIT_CUDA_INCLUDE)
    message(FATAL_ERROR "cuda_runtime_api.h is not here, which NvInfer.h includes: give CUDA's folder with -DCUDA_HOME=DIR")
  endif()
  file(STRINGS "${HIRESVIT_NVINFER_INCLUDE}/NvInferVersion.h" hiresvit_rtx_sdk REGEX "define TRT_MAJOR_RTX")
  if(hiresvit_rtx_sdk OR HIRESVIT_TENSORRT_RTX)
    set(hiresvit_module hiresvit_tensorrt_rtx)
  else()
    set(hiresvit_module hiresvit_tensorrt)
  endif()
  # Beside the library, where it is looked for.
  hiresvit_tensorrt_module(${hiresvit_module} "${HIRESVIT_NVINFER_INCLUDE}" "${HIRESVIT_CUDA_INCLUDE}")
  if(HIRESVIT_TENSORRT_RTX)
    target_compile_definitions(${hiresvit_module} PRIVATE HIRESVIT_TENSORRT_RTX=1)
  endif()
  install(TARGETS ${hiresvit_module} LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}")
endif()
