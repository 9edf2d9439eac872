//! Power cuts: a seeded sample of what `make sweep` does in full, and negative controls.

mod hygiene;
mod lockout;
mod sample;
