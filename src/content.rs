//! The shipped playbooks, templates and model files, and the user's files that replace them.
