"""What to look at before a data set is published: measures of the scored rows with a limit for each."""
