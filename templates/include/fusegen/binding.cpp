// What the bindings of all packages share: the code between torch and the generated operators. It
// is compiled once for each device, and linked into each library.
#include "fusegen/binding.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/c/shim.h>
#include <torch/headeronly/util/shim_utils.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "fusegen/activation_impl.h"
#include "fusegen/check.h"
#include "fusegen/choose_isa.h"
#include "fusegen/movement_impl.h"
#include "fusegen/tensor_impl.h"
#include "fusegen/windows_impl.h"

namespace fusegen {

Registered::Registered(const char* space, const Operator* operators, int count, const char* file) {
#if defined(FUSEGEN_CPU)
  const char* const device = "CPU";
  TorchLibraryHandle schemas;
  TORCH_ERROR_CODE_CHECK(aoti_torch_library_init_def(space, file, 0, &schemas));
  schemas_ = schemas;
  for (int n = 0; n < count; ++n) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_library_def(schemas, operators[n].schema));
  }
  for (const char* const schema :
       {"channels_last(Tensor x) -> Tensor", "channels_first(Tensor x) -> Tensor",
        "copy_into(Tensor(a!) to, Tensor x) -> ()", "sum_rows(Tensor x) -> Tensor",
        "windows(Tensor x, Tensor bias, Tensor found, int reading, int channels_last, int finds,"
        " int counts_padding, int i0, int i1, int i2, int o0, int o1, int o2, int k0, int k1,"
        " int k2, int s0, int s1, int s2, int p0, int p1, int p2, int d0, int d1, int d2)"
        " -> (Tensor, Tensor)"}) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_library_def(schemas, schema));
  }
#else
  const char* const device = "CUDA";
#endif
  TorchLibraryHandle kernels;
  TORCH_ERROR_CODE_CHECK(aoti_torch_library_init_impl(space, device, file, 0, &kernels));
  kernels_ = kernels;
  for (int n = 0; n < count; ++n) {
    const std::string schema = operators[n].schema;
    const std::string name = schema.substr(0, schema.find('('));
    TORCH_ERROR_CODE_CHECK(
        torch_library_impl(kernels, name.c_str(), operators[n].call, TORCH_ABI_VERSION));
  }
#if defined(FUSEGEN_CUDA)
  const std::pair<const char*, decltype(&windows)> shared[] = {{"channels_last", channels_last},
                                                               {"channels_first", channels_first},
                                                               {"copy_into", copy_into},
                                                               {"sum_rows", sum_rows},
                                                               {"windows", windows}};
  for (const auto& [name, call] : shared)
    TORCH_ERROR_CODE_CHECK(torch_library_impl(kernels, name, call, TORCH_ABI_VERSION));
#endif
}

Registered::~Registered() {
  for (void* const library : {kernels_, schemas_}) {
    if (library) aoti_torch_delete_library_object(static_cast<TorchLibraryHandle>(library));
  }
}

void refuse_left_out(DType dtype) {
  const char* const names[] = {"float64", "float32", "bfloat16", "float16"};
  throw std::runtime_error(std::string("x: these kernels were compiled without ") +
                           names[int(dtype)] +
                           "; add it to `dtypes:` in the spec, or to --dtypes, and build again");
}

#if defined(FUSEGEN_CUDA)

OnStream::OnStream(int32_t device) {
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream_));
  DeviceGuardHandle guard;
  TORCH_ERROR_CODE_CHECK(aoti_torch_create_device_guard(device, &guard));
  guard_ = guard;
}

OnStream::~OnStream() {
  aoti_torch_delete_device_guard(static_cast<DeviceGuardHandle>(guard_));
}

void OnStream::check(const char* error) const {
  FUSEGEN_CHECK(error == nullptr, "CUDA: ", error ? error : "");
}

Launch::Launch(const Activation& activation, bool built)
    : activation_(activation), on_(activation.x().device_index()) {
  if (!built) refuse_left_out(activation.dtype());
}

Launch::~Launch() {
  if (scratch_) aoti_torch_delete_tensor_object(scratch_);
}

void* Launch::scratch(int64_t bytes) {
  if (bytes == 0) return nullptr;
  const Tensor& x = activation_.x();
  const int64_t stride = 1;
  scratch_ =
      new_tensor({1, &bytes, &stride, aoti_torch_dtype_uint8(), x.device_type(), x.device_index()});
  void* memory = nullptr;
  TORCH_ERROR_CODE_CHECK(torch_get_mutable_data_ptr(scratch_, &memory));
  return memory;
}

#endif

}  // namespace fusegen
