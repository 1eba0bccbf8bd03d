// Windows of elements, of which a pooling takes the largest or the mean.
//
// The adjoint of reading the elements of a window is reading the windows that an element is in. So
// there are two walks, and each has the gradients of the other (windows.cuh).
#pragma once

#include <cstdint>

#include "fusegen/platform.h"

namespace fusegen {

// What is done with windows of elements, and with elements of windows.
enum class Reading {
  largest,  // a window's largest element, and which one it is
  mean,     // the mean of a window
  taken,    // of each window the element that an earlier call found: the gradient of `put`
  put,      // to each element the windows of which it was the largest: the gradient of `largest`
  spread,   // to each element its share of its windows: the gradient of `mean`
};

// A call. A place is a position in the last three dims; where there are fewer, the first are of
// size 1. At each place of each sample there are `channels` numbers, which are adjacent. Contiguous
// images have one channel here, and a sample for each of theirs.
struct Windows {
  int64_t samples, channels;
  int in[3], out[3];  // how many places elements have, and windows
  int size[3], stride[3], padding[3], dilation[3];
  bool counts_padding;    // whether a mean is also one of the padding's zeros
  int64_t bias_channels;  // of `bias`: those of a contiguous image are `bias_channels` samples

  const void* from;      // the elements, or what belongs to windows
  void* to;              // the reverse
  const void* bias;      // a number for each channel, which is added to what is stored; or null
  const uint8_t* found;  // which element of its window each largest one is, counted in the window
  uint8_t* finds;        // the same, to be stored
};

// Starts a kernel for the stored dtype S. Returns an error message, or null.
template <class S>
FUSEGEN_OPTIONAL const char* windows_cuda(const Windows& windows, Reading reading, void* stream);

}  // namespace fusegen
