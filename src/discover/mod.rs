//! From one batch of reads to facts.
