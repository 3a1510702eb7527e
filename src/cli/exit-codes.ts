/** The documented exit codes. A child's own code is passed on unchanged and may be any of them. */
export const EXIT_OK = 0;
/** A command failed, or a node could not start. */
export const EXIT_FAILURE = 1;
/** Wrong arguments, a configuration that cannot be used, or a request for help. */
export const EXIT_USAGE = 2;
/** A commit or an applied transaction could not be completed; going on would risk the data. */
export const EXIT_FATAL = 99;
