// What the front end shows of functions as values, before optimisation takes casts away.
//
// The types that each function was seen under where its address is used; which types of function pointers are cast
// into each other, also inside structs that are; which come from, or go to, pointers to data. Unions count through the
// casts by which clang reaches their members, and so do members of structs for whose types clang has a placeholder,
// because the struct is not complete where they are declared.
#pragma once

#include "members.h"
#include "types.h"
#include "words.h"
#include "llvm/IR/InlineAsm.h"
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
  FactFinder(Facts &facts, const llvm::Module &module) : facts(facts), module(module), members(module.getDataLayout()) {}

  void run() {
    for (auto &function : module) {
      if (function.isIntrinsic()) continue;
      if (!function.isDeclaration()) definition(function);
      useOf(function, function, function.getFunctionType());
      for (auto &instruction : llvm::instructions(function)) castIn(instruction);
    }
    for (auto &variable : module.globals())
      if (variable.hasInitializer()) castInConstant(*variable.getInitializer());
    for (auto &alias : module.aliases()) {
      useOf(alias, alias, alias.getValueType());
      castInConstant(*alias.getAliasee());
    }
    for (auto &resolved : module.ifuncs()) useOf(resolved, resolved, resolved.getValueType());
  }

 private:
  Facts &facts;
  const llvm::Module &module;
  MemberFinder members;
  std::set<std::pair<const llvm::Type *, const llvm::Type *>> visited;
  llvm::SmallPtrSet<const llvm::Constant *, 32> constants;

  void definition(const llvm::Function &function) {
    facts.types[linkName(function)] = typeName(function.getFunctionType());
    if (function.hasLocalLinkage()) return;
    for (auto &argument : function.args()) parameter(function, argument.getArgNo(), argument.getType());
  }

  // What is passed to a function without a declaration has the type of its definition in another file.
  void parameter(const llvm::GlobalValue &callee, unsigned number, const llvm::Type *type) {
    unsigned levels;
    type = behindPointers(type, levels);
    if (levels == 1 && llvm::isa<llvm::FunctionType>(type))
      facts.united.insert({typeName(type), "parameter " + std::to_string(number) + " of " + linkName(callee)});
  }

  void useOf(const llvm::GlobalValue &value, const llvm::Constant &constant, const llvm::Type *type) {
    using namespace llvm;
    if (!isa<FunctionType>(type)) return;
    auto &seen = facts.seen;
    for (auto &use : constant.uses()) {
      const User *user = use.getUser();
      auto *call = dyn_cast<CallBase>(user);
      if (call && call->isCallee(&use)) continue;
      if (auto *variable = dyn_cast<GlobalVariable>(user); variable && variable->getName().startswith("llvm.")) continue;
      if (isa<GlobalAlias>(user) || isa<GlobalIFunc>(user) || isa<BlockAddress>(user)) continue;
      auto *cast = dyn_cast<ConstantExpr>(user);
      if (cast && cast->isCast()) {
        castOf(value, *cast);
        continue;
      }
      // Other arithmetic on addresses, or a personality routine, or assembly.
      if (isa<Function>(user) || cast || (call && call->isInlineAsm())) seen[linkName(value)].insert("#");
      if (call && isUntyped(*call, use)) seen[linkName(value)].insert("*");
      seen[linkName(value)].insert(typeName(type));
    }
  }

  // Whether the callee chooses the type of an argument.
  static bool isUntyped(const llvm::CallBase &call, const llvm::Use &use) {
    return call.isArgOperand(&use) && call.getArgOperandNo(&use) >= call.getFunctionType()->getNumParams();
  }

  void castOf(const llvm::GlobalValue &value, const llvm::ConstantExpr &cast) {
    using namespace llvm;
    auto *pointer = dyn_cast<PointerType>(cast.getType());
    const Type *to = pointer ? pointer->getNonOpaquePointerElementType() : nullptr;
    if (to && isa<FunctionType>(to)) return useOf(value, cast, to);
    if (onlyKept(cast)) return;
    auto &seen = facts.seen[linkName(value)];
    seen.insert(typeName(value.getValueType()));
    // A personality routine, or assembly: whoever calls it is not seen.
    bool isLost = any_of(cast.users(), [](const User *user) {
      auto *call = dyn_cast<CallBase>(user);
      return isa<Function>(user) || (call && call->isInlineAsm());
    });
    bool isMember = to && isPlaceholder(to) && all_of(cast.users(), [&](const User *user) { return isPlaced(*user, seen); });
    if (!isMember) seen.insert(!to || isLost ? "#" : "*");
    // A destructor, for which clang's declaration has no type (Itanium C++ ABI, exception handling, 2.4.3).
    if (any_of(cast.users(), [](const User *user) {
          auto *call = dyn_cast<CallBase>(user);
          auto *callee = call ? call->getCalledFunction() : nullptr;
          return callee && callee->getName() == "__cxa_throw";
        }))
      seen.insert("void (i8*)");
  }

  // Whether a function is stored to a member of a struct, of whose type then it is one.
  bool isPlaced(const llvm::User &user, std::set<std::string> &seen) {
    auto *store = llvm::dyn_cast<llvm::StoreInst>(&user);
    std::string place = store ? members.placeOf(*store->getPointerOperand()) : std::string();
    if (!place.empty()) seen.insert(place);
    return !place.empty();
  }

  // Whether a cast is one of a placeholder, the place of which is known: it has the types of all its casts.
  bool placeholderIn(const llvm::Value &from, const llvm::Type *to) {
    using namespace llvm;
    unsigned levels;
    if (!isPlaceholder(behindPointers(from.getType(), levels)) || !isa<FunctionType>(behindPointers(to, levels))) return false;
    std::string place = members.placeOf(from);
    if (!place.empty()) unite(typeName(behindPointers(to, levels)), place);
    return !place.empty();
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
      if (auto *constant = dyn_cast<Constant>(operand)) castInConstant(*constant);
    if (instruction.isCast() && !placeholderIn(*instruction.getOperand(0), instruction.getType()))
      castBetween(instruction.getOperand(0)->getType(), instruction.getType());
    if (auto *call = dyn_cast<CallBase>(&instruction)) argumentsOf(*call);
  }

  // What calls do to the types of their arguments: nothing, if the callee's declaration has them.
  void argumentsOf(const llvm::CallBase &call) {
    using namespace llvm;
    if (auto *assembly = dyn_cast<InlineAsm>(call.getCalledOperand())) return assemblyIn(call, *assembly);
    auto *callee = dyn_cast<GlobalValue>(call.getCalledOperand()->stripPointerCasts());
    bool isDeclared = callee && callee->getValueType() == call.getFunctionType();
    for (auto &argument : call.args()) {
      if (isUntyped(call, argument)) dataFrom(argument->getType());
      if (callee && !isDeclared) parameter(*callee, call.getArgOperandNo(&argument), argument->getType());
    }
  }

  // Assembly may take a value and give it back as one of another type.
  void assemblyIn(const llvm::CallBase &call, const llvm::InlineAsm &assembly) {
    using namespace llvm;
    SmallVector<const Type *, 8> taken, given = {call.getType()};
    if (auto *record = dyn_cast<StructType>(call.getType())) given.assign(record->element_begin(), record->element_end());
    for (auto &argument : call.args()) taken.push_back(argument->getType());
    for (auto *type : taken) {
      for (auto *result : given)
        if (!result->isVoidTy() && !type->isMetadataTy()) castBetween(type, result);
      // What assembly finds in memory it may write anywhere.
      if (unsigned levels; isa<FunctionType>(behindPointers(type, levels)) && levels > 1) dataFrom(type);
    }
    for (auto word : wordsOf(assembly.getAsmString()))
      if (auto *value = module.getNamedValue(word); value && isa<FunctionType>(value->getValueType()))
        facts.seen[linkName(*value)].insert("#");
  }

  void dataFrom(const llvm::Type *type) {
    unsigned levels;
    type = behindPointers(type, levels);
    if (levels && llvm::isa<llvm::FunctionType>(type)) facts.toData.insert(typeName(type));
    if (levels > 1 && llvm::isa<llvm::FunctionType>(type)) facts.fromData.insert(typeName(type));
  }

  void dataTo(const llvm::Type *type) {
    unsigned levels;
    type = behindPointers(type, levels);
    if (levels && llvm::isa<llvm::FunctionType>(type)) facts.fromData.insert(typeName(type));
  }

  void castInConstant(const llvm::Constant &constant) {
    using namespace llvm;
    if (isa<GlobalValue>(constant) || isa<ConstantData>(constant) || !constants.insert(&constant).second) return;
    auto *expression = dyn_cast<ConstantExpr>(&constant);
    // Casts of functions are known function by function.
    auto *value = expression ? dyn_cast<GlobalValue>(expression->getOperand(0)->stripPointerCasts()) : nullptr;
    if (expression && expression->isCast() && !(value && isa<FunctionType>(value->getValueType())))
      castBetween(expression->getOperand(0)->getType(), expression->getType());
    for (auto &operand : constant.operands())
      if (auto *part = dyn_cast<Constant>(operand)) castInConstant(*part);
  }

  void castBetween(const llvm::Type *from, const llvm::Type *to) {
    using namespace llvm;
    if (from == to || !visited.insert({from, to}).second) return;
    unsigned fromLevels, toLevels;
    const Type *source = behindPointers(from, fromLevels), *target = behindPointers(to, toLevels);
    bool isSource = fromLevels && isa<FunctionType>(source), isTarget = toLevels && isa<FunctionType>(target);
    if (isSource && isTarget) {
      // What stands for a table of virtual functions, none of which has its type.
      bool isTable = fromLevels > 1 && (isUnprototyped(source) || isUnprototyped(target));
      return isTable ? dataFrom(from), dataFrom(to) : unite(typeName(source), typeName(target));
    }
    bool isBytes = fromLevels > 1 && toLevels == 1 && target->isIntegerTy(8);
    if (isSource && !isBytes) dataFrom(from);
    if (isTarget) dataTo(to);
    if (isTarget && isUnion(source)) dataFrom(to);
    if (fromLevels && toLevels && !isBytes) castInside(pointee(from), pointee(to));
  }

  static const llvm::Type *pointee(const llvm::Type *type) {
    return llvm::cast<llvm::PointerType>(type)->getNonOpaquePointerElementType();
  }

  static bool isUnprototyped(const llvm::Type *type) {
    return llvm::cast<llvm::FunctionType>(type)->isVarArg() && type->getNumContainedTypes() == 1;
  }

  void unite(const std::string &one, const std::string &other) {
    if (one != other) facts.united.insert({one, other});
  }

  // A cast of a pointer casts all pointers that stand at the same place behind it.
  void castInside(const llvm::Type *from, const llvm::Type *to) {
    using namespace llvm;
    uniteMembers(from, to);
    uniteMembers(to, from);
    if (isUnion(from) || isUnion(to)) return;
    const auto &source = members.of(from), &target = members.of(to);
    for (auto &[place, member] : source) {
      if (auto found = target.find(place); found != target.end()) castMember(member, found->second);
      else if (members.covers(to, place)) dataFrom(member.type), dataTo(member.type);
    }
    for (auto &[place, member] : target)
      if (!source.count(place) && members.covers(from, place)) dataFrom(member.type), dataTo(member.type);
  }

  void castMember(const Member &from, const Member &to) {
    unsigned levels;
    auto *source = behindPointers(from.type, levels), *target = behindPointers(to.type, levels);
    std::string one = from.place.empty() ? typeName(source) : from.place;
    std::string other = to.place.empty() ? typeName(target) : to.place;
    bool isPlace = !from.place.empty() || !to.place.empty();
    bool isSource = !from.place.empty() || llvm::isa<llvm::FunctionType>(source);
    bool isTarget = !to.place.empty() || llvm::isa<llvm::FunctionType>(target);
    if (isPlace && isSource && isTarget) return unite(one, other);
    if (isPlace) {
      // Data on one side.
      facts.toData.insert(isSource ? one : other);
      facts.fromData.insert(isSource ? one : other);
      return;
    }
    castBetween(from.type, to.type);
  }

  // All that is written to, or read from, one place of a union has one type more, which stands for it.
  void uniteMembers(const llvm::Type *of, const llvm::Type *member) {
    using namespace llvm;
    if (!isUnion(of)) return;
    for (auto *type : {of, member})
      for (auto &[place, pointer] : members.of(type)) {
        unsigned levels;
        auto *function = behindPointers(pointer.type, levels);
        std::string own = pointer.place.empty() && isa<FunctionType>(function) ? typeName(function) : pointer.place;
        if (!own.empty()) unite(own, "union " + nameOf(cast<StructType>(of)) + " " + std::to_string(place));
      }
  }
};

}  // namespace chestnut
