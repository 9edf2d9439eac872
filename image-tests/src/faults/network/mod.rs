//! The network between a device and AWS IoT Core, or an EST server: the double, behind a relay that cuts the connection,
//! or the device's power, at any packet.

mod cloud;
mod connection;
mod est_site;
mod hello;
mod relay;

pub use cloud::{CLAIM, Cloud, fleet_settings};
pub use est_site::{EST_CA, EST_CLAIM, EstSite, est_settings};
pub use hello::Hello;
pub use relay::{Cut, Direction, Relay};
