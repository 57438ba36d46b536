// Planes of the formats whose quants are looked up or computed.
#pragma once

#include "matmul/base3_planes.h"
#include "matmul/iq1_planes.h"
#include "matmul/iq2_planes.h"
#include "matmul/iq3_planes.h"
#include "matmul/nibble_planes.h"
