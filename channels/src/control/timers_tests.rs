//! The timer wheel against a plain list.
