"""The notebooks, executed strictly by papermill, and published."""
