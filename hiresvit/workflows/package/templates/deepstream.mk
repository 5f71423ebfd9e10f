DEEPSTREAM ?= /opt/nvidia/deepstream/deepstream

libnvdsinfer_hiresvit.so: nvdsinfer_hiresvit.cpp
	$(CXX) -std=c++17 -O2 -Wall -Wextra -fPIC -shared -I$(DEEPSTREAM)/sources/includes $< -o $@
