//! The policy engine against Cedar, which decides by the whole policy. A crate of its own, since Cedar takes minutes to
//! build and only this comparison needs it: `cargo build` and the tests of `policy` do without, `tests/run` does not.

#[cfg(test)]
mod cedar;
#[cfg(test)]
mod chance;
#[cfg(test)]
mod dice;
#[cfg(test)]
mod differential;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod world;
