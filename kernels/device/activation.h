// The functions between a feed-forward's gate and its product with the up.
#pragma once

namespace quantloom::kernels {

// gelu is 0.5 x (1 + erf(x / sqrt 2)); gelu_tanh its approximation (Hendrycks and Gimpel, 2016).
enum class Activation { silu, gelu, gelu_tanh };

}  // namespace quantloom::kernels
