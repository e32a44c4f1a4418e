//! Value in, text out. Pure: nothing here asks the kernel, the time or the terminal.
