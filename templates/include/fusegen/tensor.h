// The tensors and numbers of a call of an operator, without torch's headers: those take ten times
// as long to compile as the operators of a package. binding.cpp has the code.
#pragma once

#include <cstdint>
#include <initializer_list>

struct AtenTensorOpaque;  // a tensor in torch's stable ABI

namespace fusegen {

// A tensor that a call keeps.
class [[maybe_unused]] Tensor {
 public:
  const void* const_data_ptr() const;
  void* mutable_data_ptr() const;

  int64_t dim() const;
  int64_t numel() const;
  const int64_t* sizes() const;
  const int64_t* strides() const;
  bool is_contiguous() const;
  int32_t dtype() const;  // as torch's stable ABI counts them, and devices too
  int32_t device_type() const;
  int32_t device_index() const;

  AtenTensorOpaque* get() const { return handle_; }

 private:
  friend class Call;
  Tensor(AtenTensorOpaque* handle, int place) : handle_(handle), place_(place) {}

  AtenTensorOpaque* handle_;
  int place_;  // in the call's list
};

// A call of an operator. torch hands its arguments over on a stack, and takes the results there.
class Call {
 public:
  explicit Call(uint64_t* stack) : stack_(stack), next_(stack) {}
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // Take the next argument from the stack. An operator does so with all of them before anything
  // else, because only tensors that were taken are freed when there is an error.
  Tensor tensor() { return keep(reinterpret_cast<AtenTensorOpaque*>(*next_++)); }
  double number();
  int64_t integer() { return int64_t(*next_++); }

  // Keeps a tensor until the call ends, unless it is returned.
  Tensor keep(AtenTensorOpaque* handle);

  // Ends the call: puts its results on the stack.
  void returns(std::initializer_list<Tensor> results);

 private:
  uint64_t* const stack_;
  uint64_t* next_;
  // The tensors to free. There are rarely more than a few.
  static constexpr int few = 64;
  AtenTensorOpaque* few_[few];
  AtenTensorOpaque** kept_ = few_;
  int count_ = 0, room_ = few;
};

}  // namespace fusegen
