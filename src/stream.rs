//! What happens to records before history: decoded, judged late or not, told apart from copies, ordered. It knows no view.

pub mod decode;
pub mod dedupe;
pub mod order;
pub mod placement;
pub mod schema;
pub mod watermark;
