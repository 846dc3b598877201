// All that the C++ made from a kernel's PTX calls.
#pragma once
#include "approximate.h"
#include "collectives.h"
#include "floating.h"
#include "integer.h"
#include "launch.h"
#include "memory.h"
#include "thread.h"
#include "types.h"
