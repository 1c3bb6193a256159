// What the front end shows of functions as values, before optimisation takes casts away.
//
// The types that each function was seen under where its address is used; which types of function pointers are cast
// into each other; which come from, or go to, pointers to data. Unions count through the casts by which clang reaches
// their members.
#pragma once

#include "types.h"
#include "llvm/IR/Constants.h"
#include "llvm/IR/InstIterator.h"
#include "llvm/IR/Instructions.h"
#include "llvm/IR/Module.h"
#include "llvm/IR/Operator.h"
#include <map>
#include <set>

namespace chestnut {

struct Facts {
  // By name of the function: types under which its address is known; `*` if as a pointer to data, `#` if as a number
  // or in a way that is not understood.
  std::map<std::string, std::set<std::string>> seen;
  // Types whose values are cast into each other.
  std::set<std::pair<std::string, std::string>> united;
  // Types whose values were made of pointers to data or numbers.
  std::set<std::string> fromData;
  // Types whose values become pointers to data or numbers.
  std::set<std::string> toData;
  // The types that functions are defined with.
  std::map<std::string, std::string> types;
};

// The name as the linker knows it.
inline std::string linkName(const llvm::GlobalValue &value) {
  llvm::StringRef name = value.getName();
  name.consume_front("\1");
  return name.str();
}

class FactFinder {
 public:
  explicit FactFinder(Facts &facts) : facts(facts) {}

  void run(const llvm::Module &module) {
    for (auto &function : module) {
      if (function.isIntrinsic()) continue;
      if (!function.isDeclaration()) facts.types[linkName(function)] = typeName(function.getFunctionType());
      useOf(function, function, function.getFunctionType());
      for (auto &instruction : llvm::instructions(function)) castIn(instruction);
    }
    for (auto &alias : module.aliases()) useOf(alias, alias, alias.getValueType());
    for (auto &resolved : module.ifuncs()) useOf(resolved, resolved, resolved.getValueType());
  }

 private:
  Facts &facts;

  void useOf(const llvm::GlobalValue &value, const llvm::Constant &constant, const llvm::Type *type) {
    using namespace llvm;
    if (!isa<FunctionType>(type)) return;
    auto &seen = facts.seen;
    for (auto &use : constant.uses()) {
      const User *user = use.getUser();
      if (auto *call = dyn_cast<CallBase>(user); call && call->isCallee(&use)) continue;
      if (auto *variable = dyn_cast<GlobalVariable>(user); variable && variable->getName().startswith("llvm.")) continue;
      if (isa<GlobalAlias>(user) || isa<GlobalIFunc>(user) || isa<BlockAddress>(user)) continue;
      auto *cast = dyn_cast<ConstantExpr>(user);
      if (cast && cast->isCast()) {
        castOf(value, *cast);
        continue;
      }
      // Other arithmetic on addresses, or a personality routine.
      if (isa<Function>(user) || cast) seen[linkName(value)].insert("#");
      seen[linkName(value)].insert(typeName(type));
    }
  }

  void castOf(const llvm::GlobalValue &value, const llvm::ConstantExpr &cast) {
    using namespace llvm;
    auto *pointer = dyn_cast<PointerType>(cast.getType());
    const Type *to = pointer ? pointer->getNonOpaquePointerElementType() : nullptr;
    if (to && isa<FunctionType>(to)) return useOf(value, cast, to);
    if (onlyKept(cast)) return;
    auto &seen = facts.seen[linkName(value)];
    seen.insert(typeName(value.getValueType()));
    // A personality routine: whoever calls it is not seen.
    bool isPersonality = any_of(cast.users(), [](const User *user) { return isa<Function>(user); });
    if (!to || isPersonality) seen.insert("#");
    else if (!isPlaceholder(to)) seen.insert("*");
  }

  // Whether a value is only in lists such as `llvm.used`.
  static bool onlyKept(const llvm::Constant &constant) {
    using namespace llvm;
    for (const User *user : constant.users()) {
      auto *variable = dyn_cast<GlobalVariable>(user);
      auto *part = dyn_cast<Constant>(user);
      bool isList = variable && variable->getName().startswith("llvm.");
      if (!isList && (variable || !part || !onlyKept(*part))) return false;
    }
    return true;
  }

  // Casts of values that are not known, also of the memory that holds them.
  void castIn(const llvm::Instruction &instruction) {
    using namespace llvm;
    for (auto &operand : instruction.operands())
      if (auto *constant = dyn_cast<ConstantExpr>(operand)) castInConstant(*constant);
    if (isa<BitCastInst>(instruction) || isa<IntToPtrInst>(instruction) || isa<PtrToIntInst>(instruction))
      castBetween(instruction.getOperand(0)->getType(), instruction.getType());
  }

  void castInConstant(const llvm::ConstantExpr &constant) {
    using namespace llvm;
    // Casts of functions are known function by function.
    auto *value = dyn_cast<GlobalValue>(constant.getOperand(0)->stripPointerCasts());
    if (constant.isCast() && !(value && isa<FunctionType>(value->getValueType())))
      castBetween(constant.getOperand(0)->getType(), constant.getType());
    for (auto &operand : constant.operands())
      if (auto *part = dyn_cast<ConstantExpr>(operand)) castInConstant(*part);
  }

  void castBetween(const llvm::Type *from, const llvm::Type *to) {
    using namespace llvm;
    unsigned fromLevels, toLevels;
    const Type *source = behindPointers(from, fromLevels), *target = behindPointers(to, toLevels);
    bool isSource = fromLevels && isa<FunctionType>(source), isTarget = toLevels && isa<FunctionType>(target);
    // What stands for a type that is not complete yet is no other type.
    if ((fromLevels && isPlaceholder(source)) || (toLevels && isPlaceholder(target))) return;
    if (isSource && isTarget) {
      std::string one = typeName(source), other = typeName(target);
      if (one != other) facts.united.insert({one, other});
    }
    if (isSource && !isTarget && !(fromLevels > 1 && to->isPointerTy() && target->isIntegerTy(8) && toLevels == 1))
      facts.toData.insert(typeName(source));
    if (isTarget && !isSource) {
      facts.fromData.insert(typeName(target));
      auto *record = dyn_cast<StructType>(source);
      if (record && record->hasName() && record->getName().startswith("union."))
        facts.united.insert({typeName(target), "union " + nameOf(record)});
    }
  }
};

}  // namespace chestnut
