#include "generate/ngram.h"

#include <algorithm>

namespace quantloom::generate {

NgramIndex::NgramIndex(std::span<const std::int32_t> tokens) {
  tokens_.reserve(tokens.size());
  for (const std::int32_t token : tokens) append(token);
}

NgramIndex::Ngram NgramIndex::ngram(std::size_t end, std::size_t length) const {
  Ngram found;
  found.fill(-1);
  std::copy_n(tokens_.data() + end - length, length, found.data());
  return found;
}

void NgramIndex::append(std::int32_t token) {
  const std::size_t end = tokens_.size();
  for (std::size_t length = shortest; length <= longest and length <= end; ++length) {
    after_[ngram(end, length)] = end;
  }
  tokens_.push_back(token);
}

std::vector<std::int32_t> NgramIndex::draft(std::size_t count) const {
  const std::size_t end = tokens_.size();
  for (std::size_t length = std::min(longest, end); length >= shortest; --length) {
    const auto found = after_.find(ngram(end, length));
    if (found == after_.end()) continue;
    const std::size_t from = found->second;
    std::vector<std::int32_t> guess(count);
    for (std::size_t i = 0; i < count; ++i) {
      guess[i] = from + i < end ? tokens_[from + i] : guess[from + i - end];
    }
    return guess;
  }
  return {};
}

}  // namespace quantloom::generate
