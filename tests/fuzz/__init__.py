"""Every parser of foreign bytes, as a function that must raise nothing but what its documentation says."""
