//! Listens to events and prints them; decides the exit code.
