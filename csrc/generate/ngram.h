// Prompt lookup: guesses a sequence's next tokens from what followed the same n-gram before
// (Saxena 2023, "Prompt Lookup Decoding").
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

namespace quantloom::generate {

class NgramIndex {
 public:
  static constexpr std::size_t shortest = 2;
  static constexpr std::size_t longest = 4;

  explicit NgramIndex(std::span<const std::int32_t> tokens);

  void append(std::int32_t token);

  // What followed the last earlier occurrence of the longest n-gram that ends the sequence, `count`
  // tokens; where the sequence ends before, the text is taken to repeat. Empty where no n-gram of
  // `shortest` tokens or more occurred before.
  std::vector<std::int32_t> draft(std::size_t count) const;

 private:
  // An n-gram, and -1 in the places that it leaves.
  using Ngram = std::array<std::int32_t, longest>;
  Ngram ngram(std::size_t end, std::size_t length) const;

  std::vector<std::int32_t> tokens_;
  // The index of the token after an n-gram's last occurrence that has one. Ordered, so that no
  // choice of tokens makes a look-up slow.
  std::map<Ngram, std::size_t> after_;
};

}  // namespace quantloom::generate
