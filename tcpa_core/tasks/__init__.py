"""What is learnt of a data set: a class of each picture, or of each of its pixels."""
