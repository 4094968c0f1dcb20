"""Annotation files as ImageScope, ASAP and QuPath write them, in short."""

SQUARE = [(10, 20), (30, 20), (30, 50), (10, 50)]  # 20 x 30 px
LAYER_ATTRIBUTES = '<Attributes><Attribute Name="Description" Id="0" Value=""/></Attributes>'


def vertices(points):
    return "<Vertices>" + "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in points) + "</Vertices>"


def region(points, attributes="<Attributes/>", **options):
    text = "".join(f' {name}="{value}"' for name, value in options.items())
    return f"<Region{text}>{attributes}{vertices(points)}</Region>"


def layer(*regions, name="", attributes=LAYER_ATTRIBUTES):
    return f'<Annotation Id="7" Name="{name}" Type="4">{attributes}<Regions>{"".join(regions)}</Regions><Plots/></Annotation>'


def imagescope(*layers):
    return f'<Annotations MicronsPerPixel="0.25">{"".join(layers)}</Annotations>'


def asap(*annotations, groups="_0"):
    """Annotations (name, type, group, points) as ASAP writes them."""
    texts = []
    for name, kind, group, points in annotations:
        corners = "".join(f'<Coordinate Order="{order}" X="{x}" Y="{y}"/>' for order, (x, y) in enumerate(points))
        texts.append(
            f'<Annotation Name="{name}" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58"><Coordinates>{corners}'
            "</Coordinates></Annotation>"
        )
    group_text = f'<AnnotationGroups><Group Name="{groups}" PartOfGroup="None"><Attributes/></Group></AnnotationGroups>'
    return f"<ASAP_Annotations><Annotations>{''.join(texts)}</Annotations>{group_text}</ASAP_Annotations>"


def feature(coordinates, kind="Polygon", classification=None, **properties):
    if classification is not None:
        properties["classification"] = classification
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}
