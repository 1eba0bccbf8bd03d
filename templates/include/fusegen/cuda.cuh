// Everything that a CUDA kernel includes.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "fusegen/outer.cuh"
#include "fusegen/channels.cuh"
#include "fusegen/chip.cuh"
#include "fusegen/choose_rows.cuh"
#include "fusegen/column_sums.cuh"
#include "fusegen/storage.h"
#include "fusegen/elementary.h"
#include "fusegen/launch.cuh"
#include "fusegen/partial_sums.cuh"
#include "fusegen/precision.h"
#include "fusegen/random.h"
#include "fusegen/reads.cuh"
#include "fusegen/run_sums.cuh"
#include "fusegen/team.cuh"
#include "fusegen/vector.cuh"
