cmake_minimum_required(VERSION 3.20)
project(app LANGUAGES CXX)

find_package(hiresvit @{version} REQUIRED)

add_executable(app main.cpp)
target_compile_options(app PRIVATE -Wall -Wextra)
target_link_libraries(app PRIVATE hiresvit::hiresvit)
