// Turns torch's tensors into a kernel's arguments. It uses torch's stable ABI, so one binary serves
// several versions of torch and Python. What packages share is compiled once for all (binding.cpp),
// and only that includes torch's headers.
#pragma once

#include <cstdint>

#include "fusegen/activation.h"
#include "fusegen/dtype.h"
#include "fusegen/isa.h"
#include "fusegen/on_stream.h"
#include "fusegen/tensor.h"

namespace fusegen {

// An operator: what torch calls, and its schema, "name(arguments) -> results".
struct Operator {
  void (*call)(uint64_t* stack, uint64_t inputs, uint64_t outputs);
  const char* schema;
};

// Registers a package's operators while its library is loaded: on the CPU their schemas too.
class Registered {
 public:
  template <int N>
  Registered(const char* space, const Operator (&operators)[N], const char* file = __builtin_FILE())
      : Registered(space, operators, N, file) {}
  ~Registered();
  Registered(const Registered&) = delete;
  Registered& operator=(const Registered&) = delete;

 private:
  Registered(const char* space, const Operator* operators, int count, const char* file);

  void *schemas_ = nullptr, *kernels_ = nullptr;  // torch's
};

#if defined(FUSEGEN_CUDA)

// The entry points of a kernel, as `run` takes them, in the order of DType. Those of dtypes that
// the package was not built for are null.
#define FUSEGEN_OF_DTYPES(name) \
  {name<double>, name<float>, name<fusegen::bfloat16>, name<fusegen::float16>}
#define FUSEGEN_KERNEL(name) \
  FUSEGEN_OF_DTYPES(name##_cuda_workspace), FUSEGEN_OF_DTYPES(name##_cuda)

// What a kernel is launched with: x's device, the current stream, and the scratch memory that the
// kernel asks for.
class Launch {
 public:
  // `built`: whether the package has the kernel for x's dtype.
  Launch(const Activation& activation, bool built);
  ~Launch();
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;

  void* stream() const { return on_.stream(); }
  void* scratch(int64_t bytes);
  void check(const char* error) const { on_.check(error); }

 private:
  const Activation& activation_;
  OnStream on_;
  AtenTensorOpaque* scratch_ = nullptr;
};

// Launches a CUDA kernel.
template <class Args>
void run(int64_t (*const (&workspaces)[4])(const Args&),
         const char* (*const (&launches)[4])(const Args&, void*, void*),
         const Activation& activation, const Args& args) {
  const int dtype = int(activation.dtype());
  Launch launch(activation, launches[dtype]);
  void* const scratch = launch.scratch(workspaces[dtype](args));
  launch.check(launches[dtype](args, scratch, launch.stream()));
}

#else

// The same for the CPU: one entry point per isa.
#define FUSEGEN_KERNEL(name) FUSEGEN_ISAS(name##_cpu)

// Runs the CPU kernel compiled for the isa in use.
template <class Args, int N>
void run(void (*const (&kernels)[N])(DType, const Args&), const Activation& activation,
         const Args& args) {
  kernels[isa()](activation.dtype(), args);
}

#endif

}  // namespace fusegen
