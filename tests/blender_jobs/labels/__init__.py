"""Labels held against pictures: scenes of plain emissive colours, judged by the colours and never by our own labels."""
