// The words of assembly.
#pragma once

#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/StringRef.h"

namespace chestnut {

// Mnemonics, directives, registers and symbols, whatever stands between them: comments have words, too.
inline llvm::SmallVector<llvm::StringRef, 16> wordsOf(llvm::StringRef text) {
  auto isPart = [](char c) { return llvm::isAlnum(c) || c == '_' || c == '.' || c == '$'; };
  llvm::SmallVector<llvm::StringRef, 16> words;
  while (!(text = text.drop_until(isPart)).empty()) {
    words.push_back(text.take_while(isPart));
    text = text.drop_front(words.back().size());
  }
  return words;
}

// Whether assembly defines words of its own, or takes them from elsewhere.
inline bool definesWords(llvm::StringRef text) { return text.contains(".macro") || text.contains(".include"); }

}  // namespace chestnut
