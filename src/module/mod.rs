//! What a task can do: one file a module.
