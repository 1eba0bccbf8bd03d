// Turns torch's tensors into a kernel's arguments. It uses torch's stable ABI, so one binary serves
// several versions of torch and Python.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <vector>

#include "fusegen/activation.h"
#include "fusegen/isa.h"

namespace fusegen {

// The seed of the rng: one int64 on x's device.
inline const uint64_t* seed_of(const Tensor& seed, const Activation& activation) {
  STD_TORCH_CHECK(seed.numel() == 1 && seed.scalar_type() == ScalarType::Long,
                  "seed: expected one int64");
  STD_TORCH_CHECK(seed.is_cuda() == activation.x().is_cuda(), "seed: its device is not that of x");
  return static_cast<const uint64_t*>(seed.const_data_ptr());
}

// Begins the body of a function that registers operators when the library is loaded.
// STABLE_TORCH_LIBRARY does the same, but takes the namespace as a token; here the linked code
// supplies it.
#define FUSEGEN_LIBRARY(package, kind, device)                                                  \
  static void package##_##kind(torch::stable::detail::StableLibrary&);                          \
  static const torch::stable::detail::StableTorchLibraryInit package##_##kind##_registered(     \
      torch::stable::detail::StableLibrary::Kind::kind, &package##_##kind, package##_operators, \
      device, __FILE__, __LINE__);                                                              \
  static void package##_##kind(torch::stable::detail::StableLibrary& library)

#if defined(FUSEGEN_CUDA)

// The entry points of a kernel, as `run` takes them, in the order of DType; and the dispatch key of
// this build. Those of dtypes that the package was not built for are null.
#define FUSEGEN_OF_DTYPES(name) \
  {name<double>, name<float>, name<fusegen::bfloat16>, name<fusegen::float16>}
#define FUSEGEN_KERNEL(name) \
  FUSEGEN_OF_DTYPES(name##_cuda_workspace), FUSEGEN_OF_DTYPES(name##_cuda)
#define FUSEGEN_DEVICE "CUDA"

// Launches a CUDA kernel on the current stream, with the scratch memory it asks for.
template <class Args>
void run(int64_t (*const (&workspaces)[4])(const Args&),
         const char* (*const (&launches)[4])(const Args&, void*, void*),
         const Activation& activation, const Args& args) {
  const int dtype = int(activation.dtype());
  STD_TORCH_CHECK(launches[dtype], left_out(activation.dtype()));
  const auto device = activation.x().get_device_index();
  const torch::stable::accelerator::DeviceGuard guard(device);
  void* stream = nullptr;
  aoti_torch_get_current_cuda_stream(device, &stream);
  const int64_t bytes = workspaces[dtype](args);
  Tensor scratch = bytes ? torch::stable::new_empty(activation.x(), std::vector<int64_t>{bytes},
                                                    ScalarType::Byte)
                         : activation.x();
  const char* error = launches[dtype](args, bytes ? scratch.mutable_data_ptr() : nullptr, stream);
  STD_TORCH_CHECK(error == nullptr, "CUDA: ", error ? error : "");
}

#else

// The same for the CPU: one entry point per isa.
#define FUSEGEN_KERNEL(name) FUSEGEN_ISAS(name##_cpu)
#define FUSEGEN_DEVICE "CPU"

// Runs the CPU kernel compiled for the isa in use.
template <class Args, size_t N>
void run(void (*const (&kernels)[N])(DType, const Args&), const Activation& activation,
         const Args& args) {
  kernels[isa()](activation.dtype(), args);
}

#endif

}  // namespace fusegen
