//! Migrations are embedded at compile time; a new file must cause one.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
