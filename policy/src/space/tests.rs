mod differing;
mod locate;
mod worded;
mod world;
