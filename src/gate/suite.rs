//! gate/suite
