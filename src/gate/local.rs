//! gate/local
pub struct LocalGate;
