"""The validity checks: each public function declared with `enginebench.validity.check.check` is one. Modules are found by themselves."""
