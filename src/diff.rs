//! Before and after as people read them.
