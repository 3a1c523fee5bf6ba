"""The cases for back-ends, a module for each group of the catalogue; `frontend.conformance.suite.load` finds them."""
