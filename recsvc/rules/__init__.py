"""The marketers' rules: how they are written, compiled when published, and applied to a list."""

from recsvc.rules.active import NO_RULES, ActiveRules
from recsvc.rules.compiled import NOTHING, CompiledRules, applicable, compile_rules
from recsvc.rules.model import CheckedRule, Rule, parse_rule

__all__ = [
    "NOTHING",
    "NO_RULES",
    "ActiveRules",
    "CheckedRule",
    "CompiledRules",
    "Rule",
    "applicable",
    "compile_rules",
    "parse_rule",
]
