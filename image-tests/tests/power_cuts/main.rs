//! Power may vanish at any instant. A seeded sample of what `make sweep` does in full, and that the means
//! would notice what they are there to notice.

mod hygiene;
mod lockout;
mod sample;
