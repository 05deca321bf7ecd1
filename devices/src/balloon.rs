//! Dynamic Memory: the host takes memory from this guest and gives it back.
