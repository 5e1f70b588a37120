//! From what is wanted and what is there to layouts and steps.
