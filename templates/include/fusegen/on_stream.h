// What a kernel is launched on: the current stream of a device, which is the current device
// meanwhile. binding.cpp has the code, for the GPU.
#pragma once

#include <cstdint>

namespace fusegen {

class OnStream {
 public:
  explicit OnStream(int32_t device);
  ~OnStream();
  OnStream(const OnStream&) = delete;
  OnStream& operator=(const OnStream&) = delete;

  void* stream() const { return stream_; }
  // Throws the error message of a launch, unless it is null.
  void check(const char* error) const;

 private:
  void *guard_ = nullptr, *stream_ = nullptr;
};

}  // namespace fusegen
