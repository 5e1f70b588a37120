//! Carries plans out on hosts: one transaction a host, with undo.
