// Errors of a call, as STD_TORCH_CHECK of torch/headeronly/util/Exception.h throws them. That macro
// takes a third of binding.cpp's time to compile.
#pragma once

#include <initializer_list>
#include <stdexcept>
#include <string>

namespace fusegen {
namespace {

[[noreturn, gnu::cold, gnu::noinline]] void fail(const char* function, const char* file, int line,
                                                 std::initializer_list<const char*> texts) {
  std::string message = std::string(function) + ", " + file + ":" + std::to_string(line) + ", ";
  for (const char* const text : texts) message += text;
  throw std::runtime_error(message);
}

// Throws an error that consists of several texts, unless the condition holds.
#define FUSEGEN_CHECK(condition, ...) \
  if (!(condition)) fail(__func__, __FILE__, __LINE__, {__VA_ARGS__})

}  // namespace
}  // namespace fusegen
