mod asked;
mod differing;
mod locate;
mod proved;
mod worded;
mod world;
